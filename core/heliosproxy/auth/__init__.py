"""Who a client is, and who the proxy is to a node: secrets and the SCRAM exchange. Sans-IO."""
