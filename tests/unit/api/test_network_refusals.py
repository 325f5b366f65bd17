"""What is refused of networks says why, and what to do."""

from typing import Any

from cluster.objects import EngineDescription, Node, NodeDescription, NodeEncryption, NodeStatus
from cluster.states import NodeState, Role
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


async def test_an_encrypted_network_is_refused_while_a_manager_is_of_an_older_version(api: Api) -> None:
    await encrypting(api, "able", NodeEncryption(method="kernel"))
    for role, status in ((Role.WORKER, 201), (Role.MANAGER, 400)):
        description = NodeDescription(hostname=f"old-{role}", engine=EngineDescription(version="0.4"))
        await api.put(Node(id=f"old-{role}", description=description, role=role))
        answered, said = await create(api, f"vault-{role}", encrypted="")
        assert answered == status
    assert "upgrade or remove them first (old-manager)" in said["message"]
    assert (await create(api, "plain"))[0] == 201


async def test_a_subnet_with_a_nodes_own_address_is_refused(api: Api) -> None:
    status = NodeStatus(state=NodeState.READY, address="192.0.2.11")
    description = NodeDescription(hostname="first")
    await api.put(Node(id="n1", description=description, status=status, data_path_address="198.51.100.7"))
    for number, (subnet, address) in enumerate(
        [("192.0.2.0/24", "192.0.2.11"), ("198.51.100.0/29", "198.51.100.7")]
    ):
        wanted = {"Name": f"over{number}", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": subnet}]}}
        code, problem = await api("POST", "/networks/create", wanted)
        assert code == 400
        assert f"contains {address}, the address of node first" in problem["message"]
    free = {"Name": "over", "Driver": "overlay", "IPAM": {"Config": [{"Subnet": "198.51.100.8/29"}]}}
    assert (await api("POST", "/networks/create", free))[0] == 201


async def test_a_macvlan_of_the_swarm_names_the_nodes_settings(api: Api) -> None:
    wanted: dict[str, Any] = {"Name": "lan", "Driver": "macvlan", "Scope": "swarm"}
    code, problem = await api("POST", "/networks/create", wanted)
    assert (code, "name it with --config-from" in problem["message"]) == (400, True)
    wanted["ConfigFrom"] = {"Network": "wires"}
    assert (await api("POST", "/networks/create", wanted))[0] == 201
