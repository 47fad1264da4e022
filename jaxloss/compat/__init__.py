"""Other libraries' names and signatures for the losses of this one."""
