"""The `winnow` command. Each command is loaded only when it is called."""
