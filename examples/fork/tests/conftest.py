"""This project's own options for pytest. None of yololoss's is in its way: only the command ``yololoss`` is run."""


def pytest_addoption(parser):
    """Add the options."""
    parser.addoption("--device", default="cpu", help="where the tests of the network run")
