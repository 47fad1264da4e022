"""The command line: `python -m jaxloss`, and what it draws and writes."""
