"""The cluster's certificate authority: founds clusters, admits nodes, renews certificates, follows roles."""
