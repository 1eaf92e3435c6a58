"""Those who do not keep to the protocol. For tests and the demo only; no package imports this folder."""
