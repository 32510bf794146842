"""`python -m service` is `coloq`."""

from service.cli import app

app()
