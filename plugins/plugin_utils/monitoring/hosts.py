# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""Alerts about hosts and the fleet: keys, certificates, disks, drains, releases, gates, and the figures themselves."""

from __future__ import annotations

from ansible_collections.inference.fleet.plugins.plugin_utils.monitoring.alert import Alert

_DAY = 86400
_CLIENT = "min by (client) (fleet_client_expires_timestamp_seconds) - time()"
_CERTIFICATE = "min by (host, file) (fleet_certificate_expires_timestamp_seconds) - time()"
#: The disks that hosts report, and those of the monitoring host, which has only node exporter's figures.
_OWN_DISK = '{job="node",kind="monitoring",fstype=~"ext4|xfs|btrfs"}'
_FREE = (
    "(fleet_disk_available_bytes / fleet_disk_size_bytes\n"
    f"or node_filesystem_avail_bytes{_OWN_DISK} / node_filesystem_size_bytes{_OWN_DISK})"
)
_FILLING = (
    f"(predict_linear(fleet_disk_available_bytes[6h], {_DAY}) < 0\n"
    f"or predict_linear(node_filesystem_avail_bytes{_OWN_DISK}[6h], {_DAY}) < 0)"
)

_ROTATE = (
    "Set expires of the client in fleet_clients to a later day and run playbooks/keys.yml, or tell its owner that the "
    "client ends. The key itself stays."
)
_RENEW = "Renew the certificate, put the file in its place on the host and run site.yml."
_MAKE_ROOM = (
    "playbooks/status.yml shows the disks. Runtimes and weights that no release needs go at the next site.yml; the "
    "journal has SystemMaxUse. On a monitoring host lower monitoring_retention_size."
)

ALERTS = (
    Alert(
        "ProbeFails",
        "The fleet did not answer a completion at {{ $labels.target }} for 3 minutes",
        "max_over_time(fleet_probe_success[3m]) == 0",
        "page",
        "A short completion through the front door, once a minute, has failed for 3 minutes. It sees what no counter "
        "on a host does: name, certificate, balancer, a fleet without traffic.",
        "journalctl -u inference-probe on the monitoring host has the answer or the error. playbooks/smoke.yml asks "
        "every host. If the hosts answer, look at the balancer: playbooks/balancer.yml.",
        "1m",
    ),
    Alert(
        "KeyExpires",
        "The client {{ $labels.client }} is refused in {{ $value | humanizeDuration }}",
        f"{_CLIENT} < {14 * _DAY} and {_CLIENT} > 0",
        "ticket",
        "The day in a client's expires is less than 14 days away. From then on the edges refuse it.",
        _ROTATE,
    ),
    Alert(
        "KeyExpiresSoon",
        "The client {{ $labels.client }} is refused in {{ $value | humanizeDuration }}",
        f"{_CLIENT} < {3 * _DAY} and {_CLIENT} > -{_DAY}",
        "page",
        "Less than 3 days are left, or it has happened within the last day. The client's requests get 401 from then "
        "on.",
        _ROTATE,
    ),
    Alert(
        "CertificateExpires",
        "{{ $labels.host }}: {{ $labels.file }} expires in {{ $value | humanizeDuration }}",
        f"{_CERTIFICATE} < {21 * _DAY}",
        "ticket",
        "A certificate of an edge expires within 21 days.",
        _RENEW,
    ),
    Alert(
        "CertificateExpiresSoon",
        "{{ $labels.host }}: {{ $labels.file }} expires in {{ $value | humanizeDuration }}",
        f"{_CERTIFICATE} < {7 * _DAY}",
        "page",
        "A certificate of an edge expires within 7 days, or has expired. Clients that verify it refuse the host then.",
        _RENEW,
    ),
    Alert(
        "DiskFills",
        "{{ $labels.host }}: the disk {{ $labels.what }}{{ $labels.mountpoint }} is filling",
        f"{_FREE} < 0.1\nor {_FILLING}",
        "ticket",
        "Less than a tenth of a disk is free, or it is full within a day at its present pace. A runtime needs 12 GiB.",
        _MAKE_ROOM,
        "30m",
    ),
    Alert(
        "DiskFull",
        "{{ $labels.host }}: {{ $value | humanizePercentage }} of {{ $labels.what }}{{ $labels.mountpoint }} is free",
        f"{_FREE} < 0.03",
        "page",
        "A disk is full: no release can be installed, no state can be written, logs are lost.",
        _MAKE_ROOM,
        "5m",
    ),
    Alert(
        "DrainForgotten",
        "{{ $labels.host }} {{ $labels.target }} has been drained by hand for {{ $value | humanizeDuration }}",
        f'time() - fleet_drain_since_timestamp_seconds{{by="operator"}} > {_DAY}',
        "ticket",
        "It was drained by hand more than a day ago. Rollouts leave it out, and it costs money without serving.",
        "playbooks/undrain.yml -l HOST, or stop the instance.",
    ),
    Alert(
        "ReleaseDrift",
        "{{ $value }} releases of {{ $labels.engine }} in ring {{ $labels.ring }}",
        "count by (ring, engine, model, profile, server) (\n"
        "  count by (ring, engine, model, profile, server, release) (fleet_release_info)) > 1\n"
        "unless on () count(fleet_rollout_claim_timestamp_seconds) > 0",
        "ticket",
        "Hosts of one ring run different releases for a day, and no rollout is on its way: one was stopped and never "
        "continued.",
        "playbooks/status.yml shows who runs what. Run site.yml to finish the rollout, or playbooks/rollback.yml.",
        "24h",
    ),
    Alert(
        "RolloutUnfinished",
        "{{ $labels.host }} has been claimed by a rollout for {{ $value | humanizeDuration }}",
        "time() - fleet_rollout_claim_timestamp_seconds > 21600",
        "ticket",
        "A rollout took the host more than 6 hours ago and has not given it back. Its controller is gone, or it waits.",
        "Run the same playbook again: it goes on. If its controller is gone, add -e rollout_take_over=true.",
    ),
    Alert(
        "GateFailed",
        "{{ $labels.host }}: the last gate of {{ $labels.name }} was not passed",
        "fleet_gate_passed == 0",
        "ticket",
        "The last real completions that were asked there were not answered correctly.",
        "The record is on the host, /var/lib/inference/gate/NAME.json. playbooks/smoke.yml -l HOST asks again.",
        "15m",
    ),
    Alert(
        "GateOld",
        "{{ $labels.host }}: the last gate of {{ $labels.name }} was {{ $value | humanizeDuration }} ago",
        f"time() - fleet_gate_timestamp_seconds > {7 * _DAY}",
        "ticket",
        "For a week no gate has proven that the host answers correctly.",
        "Run playbooks/smoke.yml, better every night.",
    ),
    Alert(
        "HostNotSeen",
        "{{ $labels.job }} of {{ $labels.host }} does not answer",
        'up{job=~"edge|node"} == 0',
        "ticket",
        "The edge or the node exporter of the host cannot be read for 5 minutes: the host is down, its edge is, the "
        "key is refused, or no exporter is there. If clients notice, the budget alerts page.",
        "The page Targets of Prometheus has the error. 401: run site.yml -l monitoring, which brings the key. No "
        "answer: playbooks/status.yml -l HOST.",
        "5m",
    ),
    Alert(
        "FiguresMissing",
        "Prometheus has no figures of any host",
        "absent(up)",
        "page",
        "For five minutes nothing was scraped, or nothing could be stored, as with a full disk. All other alerts are "
        "blind. The fleet itself is not affected.",
        "df and journalctl -u prometheus on the monitoring host. No space left: make room, and it goes on by itself; "
        "lower monitoring_retention_size. If there are no targets: site.yml -l monitoring.",
        "1m",
    ),
    Alert(
        "LookStale",
        "{{ $labels.host }} has written no facts for {{ $value | humanizeDuration }}",
        "time() - fleet_last_look_timestamp_seconds > 300",
        "ticket",
        "The host's own facts (keys, GPUs, drains, releases, disks) are older than 5 minutes. Alerts on them are "
        "blind.",
        "systemctl status inference-facts.timer inference-facts.service on the host. A full disk is a cause, too.",
        "5m",
    ),
    Alert(
        "ClockWrong",
        "The clock of {{ $labels.host }} is {{ $value | humanizeDuration }} ahead",
        "fleet_last_look_timestamp_seconds - time() > 60",
        "ticket",
        "The host's clock is ahead of that of the monitoring host. Expiries, drains and claims are judged by clocks.",
        "timedatectl on both hosts; start chrony or systemd-timesyncd.",
        "5m",
    ),
    Alert(
        "TextfileBroken",
        "{{ $labels.host }}: node exporter cannot read a text file",
        "node_textfile_scrape_error > 0",
        "ticket",
        "A file in /var/lib/inference/metrics is not valid, so that its figures are missing.",
        "The journal of prometheus-node-exporter on the host names file and line. Remove a file that is not the "
        "fleet's.",
        "5m",
    ),
    Alert(
        "DeadMan",
        "Prometheus evaluates its rules",
        "vector(1)",
        "none",
        "It always fires. Send it to a heartbeat service outside of this network, which pages when it stays away: "
        "nothing else notices that Prometheus or Alertmanager is down.",
        "Nothing while it fires. If the heartbeat service pages, look at the monitoring host.",
    ),
)
