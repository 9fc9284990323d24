"""tlsserver under the servers of others: each module needs the framework that it is named after."""
