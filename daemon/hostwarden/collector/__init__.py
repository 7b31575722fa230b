"""hostwarden-collector: receives records from hosts, proves them complete, stores and serves them."""
