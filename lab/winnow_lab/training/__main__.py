"""`python -m winnow_lab.training`: the same as `winnow train`, in the form that torchrun and accelerate launch."""

from __future__ import annotations

import sys

import click

from winnow_client.cli.main import sentence_of
from winnow_lab.training.command import train
from winnow_lab.training.distributed import is_first


def main() -> None:
    """Runs, and ends the process; what goes wrong is one sentence on standard error."""
    try:
        train(prog_name="winnow train", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Exception as error:
        if is_first():
            click.echo(f"Error: {sentence_of(error)}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
