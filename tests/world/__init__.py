"""The world the agent lives in, simulated: brokers, proxies, models, sensors, clocks.  No mocks."""
