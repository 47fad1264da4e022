"""The command line `jaxloss`, its tables and its pictures."""
