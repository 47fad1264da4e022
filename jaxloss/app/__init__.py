"""The command line: `jaxloss`, and what it draws and writes."""
