"""The demo's story, one file a chapter; every chapter uses the SDK and the services as an integrator would."""
