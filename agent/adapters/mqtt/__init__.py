"""MQTT, by paho: the control link, and the data connection that reads in bulk.

`MqttLink` and `MqttSource` are what the house uses; the rest is how.
"""
