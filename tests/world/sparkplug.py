"""Edge nodes as others write them: Sparkplug B 3.0, encoded by the published schema, whole."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# The parts of org.eclipse.tahu.protobuf that may be sent; `*` repeats, `|` is of the one `value`.
SCHEMA = """
DataSetValue   1 int_value uint32 | 2 long_value uint64 | 3 float_value float |
DataSetValue   4 double_value double | 5 boolean_value bool | 6 string_value string |
Row            1 elements DataSetValue *
DataSet        1 num_of_columns uint64, 2 columns string *, 3 types uint32 *, 4 rows Row *
PropertyValue  1 type uint32, 2 is_null bool, 3 int_value uint32 | 8 string_value string |
PropertySet    1 keys string *, 2 values PropertyValue *
MetaData       1 is_multi_part bool, 2 content_type string, 8 description string
Template       1 version string, 2 metrics Metric *, 4 template_ref string, 5 is_definition bool
Metric         1 name string, 2 alias uint64, 3 timestamp uint64, 4 datatype uint32
Metric         5 is_historical bool, 6 is_transient bool, 7 is_null bool
Metric         8 metadata MetaData, 9 properties PropertySet
Metric         10 int_value uint32 | 11 long_value uint64 | 12 float_value float |
Metric         13 double_value double | 14 boolean_value bool | 15 string_value string |
Metric         16 bytes_value bytes | 17 dataset_value DataSet | 18 template_value Template |
Payload        1 timestamp uint64, 2 metrics Metric *, 3 seq uint64, 4 uuid string, 5 body bytes
"""
PACKAGE = "org.eclipse.tahu.protobuf"
INTEGERS = {
    "Int8": (1, 8),
    "Int16": (2, 16),
    "Int32": (3, 32),
    "Int64": (4, 64),
    "UInt8": (5, 8),
    "UInt16": (6, 16),
    "UInt32": (7, 32),
    "UInt64": (8, 64),
    "DateTime": (13, 64),
}
OTHERS = {
    "Float": (9, "float_value"),
    "Double": (10, "double_value"),
    "Boolean": (11, "boolean_value"),
    "String": (12, "string_value"),
    "Bytes": (17, "bytes_value"),
    "DataSet": (16, "dataset_value"),
    "Template": (19, "template_value"),
}


def _made():
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="tahu.proto", package=PACKAGE, syntax="proto2")
    messages = {}
    for line in SCHEMA.strip().splitlines():
        name, fields = line.split(None, 1)
        message = messages.get(name)
        if message is None:
            message = messages[name] = file.message_type.add(name=name)
        for part in fields.replace("|", "|,").split(","):
            if not part.strip():
                continue
            number, field, kind, *marks = part.replace("|", " |").split()
            added = message.field.add(name=field, number=int(number), label=1 + 2 * ("*" in marks))
            if kind[0].isupper():
                added.type, added.type_name = kinds.TYPE_MESSAGE, f".{PACKAGE}.{kind}"
            else:
                added.type = getattr(kinds, f"TYPE_{kind.upper()}")
            if "|" in marks:
                if not message.oneof_decl:
                    message.oneof_decl.add(name="value")
                added.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{PACKAGE}.Payload"))


Payload = _made()


def payload(*metrics, at=None, seq=None):
    """`metrics` are dicts as `metric` makes them."""
    made = Payload(metrics=metrics)
    if at is not None:
        made.timestamp = at
    if seq is not None:
        made.seq = seq
    return made.SerializeToString()


def metric(kind, value, *, name=None, alias=None, birth=False, **more):
    """One metric of a payload; None is null.  `birth`: it says its type."""
    made = {"name": name, "alias": alias, **more}
    if birth:
        made["datatype"] = INTEGERS[kind][0] if kind in INTEGERS else OTHERS[kind][0]
    if value is None:
        made["is_null"] = True
    elif kind in INTEGERS:
        wide = INTEGERS[kind][1] == 64
        made["long_value" if wide else "int_value"] = value % (2**64 if wide else 2**32)
    else:
        made[OTHERS[kind][1]] = value
    return {name: value for name, value in made.items() if value is not None}


class EdgeNode:
    """An edge node with devices: name -> {metric: (type, value)}; its topics and payloads.

    Births give aliases that are unique in the node; data name what changed by its alias alone.
    """

    def __init__(self, node="e1", group="plant", bd_seq=0, **devices):
        self.group, self.node, self.bd_seq = group, node, bd_seq
        self.devices = devices
        self.seq = -1
        self.aliases = {}

    def topic(self, verb, device=""):
        return "/".join(["spBv1.0", self.group, verb, self.node, *([device] if device else [])])

    def births(self, at):
        """(topic, payload) of the node and of each of its devices."""
        self.seq = -1
        said = [
            metric("Int64", self.bd_seq, name="bdSeq", birth=True),
            metric("Boolean", value=False, name="Node Control/Rebirth", birth=True),
        ]
        yield self.topic("NBIRTH"), payload(*said, at=at, seq=self._next())
        for device in self.devices:
            yield self.birth(device, at)

    def birth(self, device, at):
        """(topic, payload) of one device."""
        said = []
        for name, (kind, value) in self.devices[device].items():
            alias = self.aliases.setdefault((device, name), len(self.aliases))
            said.append(metric(kind, value, name=name, alias=alias, birth=True, timestamp=at))
        return self.topic("DBIRTH", device), payload(*said, at=at, seq=self._next())

    def data(self, device, at, **changes):
        """(topic, payload) of what changed."""
        said = [
            metric(
                self.devices[device][name][0],
                value,
                alias=self.aliases[device, name],
                timestamp=at,
            )
            for name, value in changes.items()
        ]
        return self.topic("DDATA", device), payload(*said, at=at, seq=self._next())

    def death(self, device="", at=0):
        """(topic, payload) of a death; the node's is the will that its connection was made with."""
        if device:
            return self.topic("DDEATH", device), payload(at=at, seq=self._next())
        return self.topic("NDEATH"), payload(metric("Int64", self.bd_seq, name="bdSeq"))

    def _next(self):
        self.seq = (self.seq + 1) % 256
        return self.seq
