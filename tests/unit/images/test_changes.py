"""Instructions of `docker import --change`."""

import pytest

from cluster.errors import InvalidArgument
from worker.images.changes import apply_changes
from worker.images.config import ImageConfig


def test_instructions_change_the_configuration() -> None:
    base = ImageConfig(env=("A=1", "B=2"), labels={"x": "1"}, exposed_ports=("80/tcp",))
    config = apply_changes(
        base,
        [
            'CMD ["sleep", "9"]',
            "ENTRYPOINT run it\nENV B=3 C='4 5'",
            "env D old style",
            "EXPOSE 443 53/udp",
            "LABEL y=2",
            "USER me",
            'VOLUME ["/data"]',
            "WORKDIR /srv",
            "STOPSIGNAL SIGINT",
        ],
    )
    assert config == ImageConfig(
        cmd=("sleep", "9"),
        entrypoint=("/bin/sh", "-c", "run it"),
        env=("A=1", "B=3", "C=4 5", "D=old style"),
        exposed_ports=("443/tcp", "53/udp", "80/tcp"),
        labels={"x": "1", "y": "2"},
        user="me",
        volumes=("/data",),
        working_dir="/srv",
        stop_signal="SIGINT",
    )


@pytest.mark.parametrize("text", ["RUN make", "CMD", "EXPOSE many", "ENV A=1 B", "ENV 'A=1"])
def test_what_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        apply_changes(ImageConfig(), [text])
