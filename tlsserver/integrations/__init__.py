"""The servers and frameworks of others, with our TLS. Each module imports one of them, and no module another one."""
