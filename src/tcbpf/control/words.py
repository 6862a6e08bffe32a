"""The words of hooks and handles, under the name that scripts import them by."""

from tcbpf.control.handles import HOOKS as HOOKS
from tcbpf.control.handles import format_handle as format_handle
from tcbpf.control.handles import format_protocol as format_protocol
from tcbpf.control.handles import parse_classid as parse_classid
from tcbpf.control.handles import parse_protocol as parse_protocol
