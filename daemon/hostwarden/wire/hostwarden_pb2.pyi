from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("ready", "tiers", "lost", "sequence", "json")
    class TiersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    READY_FIELD_NUMBER: _ClassVar[int]
    TIERS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    ready: bool
    tiers: _containers.ScalarMap[str, str]
    lost: int
    sequence: int
    json: bytes
    def __init__(self, ready: _Optional[bool] = ..., tiers: _Optional[_Mapping[str, str]] = ..., lost: _Optional[int] = ..., sequence: _Optional[int] = ..., json: _Optional[bytes] = ...) -> None: ...

class DoctorRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JsonReply(_message.Message):
    __slots__ = ("json",)
    JSON_FIELD_NUMBER: _ClassVar[int]
    json: bytes
    def __init__(self, json: _Optional[bytes] = ...) -> None: ...

class PsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class EventsRequest(_message.Message):
    __slots__ = ("since", "follow", "agent", "verdict", "host")
    SINCE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    since: int
    follow: bool
    agent: str
    verdict: str
    host: str
    def __init__(self, since: _Optional[int] = ..., follow: _Optional[bool] = ..., agent: _Optional[str] = ..., verdict: _Optional[str] = ..., host: _Optional[str] = ...) -> None: ...

class RecordLine(_message.Message):
    __slots__ = ("host", "sequence", "line")
    HOST_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LINE_FIELD_NUMBER: _ClassVar[int]
    host: str
    sequence: int
    line: bytes
    def __init__(self, host: _Optional[str] = ..., sequence: _Optional[int] = ..., line: _Optional[bytes] = ...) -> None: ...

class BindRequest(_message.Message):
    __slots__ = ("agent", "labels", "pid", "start_ticks")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AGENT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    START_TICKS_FIELD_NUMBER: _ClassVar[int]
    agent: str
    labels: _containers.ScalarMap[str, str]
    pid: int
    start_ticks: int
    def __init__(self, agent: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., pid: _Optional[int] = ..., start_ticks: _Optional[int] = ...) -> None: ...

class BindReply(_message.Message):
    __slots__ = ("agent", "joined")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    agent: str
    joined: bool
    def __init__(self, agent: _Optional[str] = ..., joined: _Optional[bool] = ...) -> None: ...

class AdoptRequest(_message.Message):
    __slots__ = ("pid", "agent", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    agent: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, pid: _Optional[int] = ..., agent: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AdoptReply(_message.Message):
    __slots__ = ("agent", "processes", "json")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    PROCESSES_FIELD_NUMBER: _ClassVar[int]
    JSON_FIELD_NUMBER: _ClassVar[int]
    agent: str
    processes: int
    json: bytes
    def __init__(self, agent: _Optional[str] = ..., processes: _Optional[int] = ..., json: _Optional[bytes] = ...) -> None: ...

class KillRequest(_message.Message):
    __slots__ = ("labels", "timeout_s")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, str]
    timeout_s: float
    def __init__(self, labels: _Optional[_Mapping[str, str]] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class KillReply(_message.Message):
    __slots__ = ("killed", "agents", "left")
    KILLED_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    killed: int
    agents: _containers.RepeatedScalarFieldContainer[str]
    left: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, killed: _Optional[int] = ..., agents: _Optional[_Iterable[str]] = ..., left: _Optional[_Iterable[int]] = ...) -> None: ...

class FreezeRequest(_message.Message):
    __slots__ = ("labels", "timeout_s")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, str]
    timeout_s: float
    def __init__(self, labels: _Optional[_Mapping[str, str]] = ..., timeout_s: _Optional[float] = ...) -> None: ...

class FreezeReply(_message.Message):
    __slots__ = ("frozen", "agents", "left")
    FROZEN_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    frozen: int
    agents: _containers.RepeatedScalarFieldContainer[str]
    left: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, frozen: _Optional[int] = ..., agents: _Optional[_Iterable[str]] = ..., left: _Optional[_Iterable[int]] = ...) -> None: ...

class ReleaseRequest(_message.Message):
    __slots__ = ("labels", "agent")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    LABELS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    labels: _containers.ScalarMap[str, str]
    agent: str
    def __init__(self, labels: _Optional[_Mapping[str, str]] = ..., agent: _Optional[str] = ...) -> None: ...

class ReleaseReply(_message.Message):
    __slots__ = ("agents",)
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, agents: _Optional[_Iterable[str]] = ...) -> None: ...

class ReloadRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadReply(_message.Message):
    __slots__ = ("generation", "policies", "warnings")
    GENERATION_FIELD_NUMBER: _ClassVar[int]
    POLICIES_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    generation: int
    policies: int
    warnings: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, generation: _Optional[int] = ..., policies: _Optional[int] = ..., warnings: _Optional[_Iterable[str]] = ...) -> None: ...

class ArmRequest(_message.Message):
    __slots__ = ("armed",)
    ARMED_FIELD_NUMBER: _ClassVar[int]
    armed: bool
    def __init__(self, armed: _Optional[bool] = ...) -> None: ...

class ArmReply(_message.Message):
    __slots__ = ("armed",)
    ARMED_FIELD_NUMBER: _ClassVar[int]
    armed: bool
    def __init__(self, armed: _Optional[bool] = ...) -> None: ...

class HostMessage(_message.Message):
    __slots__ = ("hello", "batch")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    batch: Batch
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., batch: _Optional[_Union[Batch, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("host", "log", "public_key")
    HOST_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_KEY_FIELD_NUMBER: _ClassVar[int]
    host: str
    log: str
    public_key: bytes
    def __init__(self, host: _Optional[str] = ..., log: _Optional[str] = ..., public_key: _Optional[bytes] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("first", "lines", "checkpoints")
    FIRST_FIELD_NUMBER: _ClassVar[int]
    LINES_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINTS_FIELD_NUMBER: _ClassVar[int]
    first: int
    lines: _containers.RepeatedScalarFieldContainer[bytes]
    checkpoints: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, first: _Optional[int] = ..., lines: _Optional[_Iterable[bytes]] = ..., checkpoints: _Optional[_Iterable[str]] = ...) -> None: ...

class CollectorMessage(_message.Message):
    __slots__ = ("welcome", "ack", "refusal")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    ack: Ack
    refusal: Refusal
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., refusal: _Optional[_Union[Refusal, _Mapping]] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("stored", "leaf_hash")
    STORED_FIELD_NUMBER: _ClassVar[int]
    LEAF_HASH_FIELD_NUMBER: _ClassVar[int]
    stored: int
    leaf_hash: bytes
    def __init__(self, stored: _Optional[int] = ..., leaf_hash: _Optional[bytes] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("stored",)
    STORED_FIELD_NUMBER: _ClassVar[int]
    stored: int
    def __init__(self, stored: _Optional[int] = ...) -> None: ...

class Refusal(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
