"""The parts of a node, each in a file that makes it from those before; service.node joins, starts and stops them.

ground ─► engine room ─► judges ─► tenancy ─► tuning ─► canary ─► serving ─► feedback ─► reward models
"""
