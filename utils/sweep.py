def sweep(mode, given): pass
