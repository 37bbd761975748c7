"""A Ray cluster of several nodes on this machine, in a process of its own: ``python -m tests.ray_cluster [NODES]``.

Prints its address. A line "lose" on standard input kills a node with all of its processes; the end of it ends all.
"""

import sys

import psutil
from ray.cluster_utils import Cluster


def main(nodes: int = 2) -> None:
    """The head, and so many nodes beside it, with one processor each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    others = [cluster.add_node(num_cpus=1) for _ in range(nodes)]
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line.strip() == "lose":
            (raylet,) = others.pop().all_processes["raylet"]
            node = psutil.Process(raylet.process.pid)
            for process in (node, *node.children(recursive=True)):
                process.kill()
            print("lost", flush=True)
    cluster.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
