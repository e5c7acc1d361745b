"""`python -m heliosproxy`."""

from heliosproxy.cli.main import app

if __name__ == "__main__":
    app(prog_name="helios")
