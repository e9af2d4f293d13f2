"""`winnow bench inference`: the model services, through their own gRPC, beside other engines in the same run."""
