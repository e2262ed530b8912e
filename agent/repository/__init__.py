"""The publishing side: build, sign, publish, serve, deploy.  Never imported by the device side."""
