"""The losses, a folder for each family; import them from `jaxloss`, not from here."""
