"""The two commands of the README on a stock Debian in a virtual machine: ``make test-stock``."""
