"""What the log of every Shoal process looks like: one line an event, text or JSON, with `extra` as fields."""

import json
import logging
import sys
from datetime import UTC, datetime

logging.addLevelName(logging.WARNING, "WARN")
logging.addLevelName(logging.CRITICAL, "FATAL")
LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _Formatter(logging.Formatter):
    def fields(self, record: logging.LogRecord) -> dict[str, object]:
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        fields |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            fields["error"] = self.formatException(record.exc_info)
        return fields


class JSONFormatter(_Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON."""
        return json.dumps(self.fields(record), default=str)


class TextFormatter(_Formatter):
    """logfmt, as dockerd writes it."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as key=value pairs."""
        return " ".join(f"{key}={self._quote(value)}" for key, value in self.fields(record).items())

    @staticmethod
    def _quote(value: object) -> str:
        text = str(value)
        return json.dumps(text) if not text or any(c in text for c in ' ="\n') else text


def configure(level: str, log_format: str) -> None:
    """Send all logs to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(LEVELS[level])
    # aiohttp's access log and asyncio's selector choice are noise below debug
    logging.getLogger("aiohttp.access").setLevel(max(LEVELS[level], logging.WARNING))
    for noisy in ("asyncio", "pyroute2"):
        logging.getLogger(noisy).setLevel(max(LEVELS[level], logging.WARNING))
