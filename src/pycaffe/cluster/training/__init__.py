"""`pycaffe.cluster.train`: the actors around the protocol, the driver, and all-reduce."""
