"""What is refused of networks says why, and what to do."""

from typing import Any

from cluster.objects import Node, NodeDescription, NodeEncryption, NodeStatus
from cluster.states import NodeState
from tests.unit.api.manager import Api

NO_WIREGUARD = "`modprobe wireguard`, or install wireguard-go"


async def create(api: Api, name: str, **options: str) -> tuple[int, Any]:
    return await api("POST", "/networks/create", {"Name": name, "Driver": "overlay", "Options": options})


async def encrypting(api: Api, id: str, said: NodeEncryption) -> None:
    description = NodeDescription(hostname=id, encryption=said)
    await api.put(Node(id=id, description=description, status=NodeStatus(state=NodeState.READY)))


async def test_an_encrypted_network_that_no_node_can_have_is_refused_with_each_nodes_reason(api: Api) -> None:
    await encrypting(api, "bare", NodeEncryption(trouble=NO_WIREGUARD))
    await encrypting(api, "old", NodeEncryption())
    status, problem = await create(api, "vault", encrypted="")
    assert status == 400
    said, reasons = problem["message"].split(" (", 1)
    assert said == "no node of this cluster can encrypt networks, and they are never left plain instead"
    assert f"bare: {NO_WIREGUARD}; " in reasons
    assert "old: an older version" in reasons
    await encrypting(api, "able", NodeEncryption(method="kernel"))
    assert (await create(api, "vault", encrypted=""))[0] == 201
