# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""The key store in AWS Secrets Manager.

Each client has its own secret, ``<prefix>/<client>``, whose versions are its keys, rather than one secret with all
keys, because

- the staging labels then are the rotation's states, as Secrets Manager means them: AWSPENDING is the pending key,
  AWSCURRENT the current one, AWSPREVIOUS the previous one. A consumer in AWS needs nothing of ours: it reads ``key`` in
  AWSCURRENT, and IAM lets it read its own secret and no other;
- a key's id, which follows from rotation and client, is its version's ClientRequestToken: AWS creates that version
  once, however often the step is repeated;
- moving AWSCURRENT names the version that it must come from, so of two concurrent moves one fails; and AWS moves
  AWSPREVIOUS in the same instant;
- a secret holds 64 KiB, enough for only a few hundred clients.

Tags hold what is not secret and changes: a client's attributes, when its keys were activated and retire, and the hashes
of its retired keys. A version cannot be deleted: one without a label is a dead key that AWS removes eventually.

One more secret, ``<prefix>/_fleet``, has no key but the shared data: the clients' names (ListSecrets may be minutes
late, and a client that is not listed would be locked out), the store's identity and generation, the rotation in
progress, and the hashes of removed clients' keys. It changes only by moving its AWSCURRENT from the version that was
read. That is the lock, and why no change is lost: a late writer gets StoreChanged and starts from the new content.

A change of several calls is ordered so that a crash leaves behind a valid content: the rotation is claimed before keys
change and ended after; tags name versions, so they mean nothing until the label is moved; a client is named in
``_fleet`` after its secret was created, and marked as being removed before it is deleted. While the edges' data
changes, ``_fleet`` says so, and load() reads it before and after the clients' secrets: a content that was read in the
middle of a change is known to have no generation.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import re
import typing as t
import uuid

from ansible_collections.inference.fleet.plugins.module_utils.core import keys
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.module_utils.core.errors import FleetError
from ansible_collections.inference.fleet.plugins.module_utils.keys import document as key_document
from ansible_collections.inference.fleet.plugins.module_utils.keys import tags as key_tags
from ansible_collections.inference.fleet.plugins.module_utils.keys.secrets_manager import (
    BAD_PARAMETER,
    BAD_REQUEST,
    CONNECTIONS,
    EXISTS,
    NOT_FOUND,
    SecretsManager,
)
from ansible_collections.inference.fleet.plugins.module_utils.keys.store import ClientKeys, Content, Key, StoreChanged

_FLEET = "_fleet"
_PENDING, _CURRENT, _PREVIOUS = "AWSPENDING", "AWSCURRENT", "AWSPREVIOUS"
_MAX_BYTES = 65536
# How often to read a store again that changes meanwhile.
_READS = 3
_PREFIX = re.compile(r"[A-Za-z0-9_+=.@-]+(/[A-Za-z0-9_+=.@-]+)*")
_MAX_PREFIX = 400


@dataclasses.dataclass(frozen=True)
class SecretOptions:
    """The names and settings of the secrets.

    Attributes:
        prefix: of their names.
        kms_key_id: the KMS key that encrypts them; empty for AWS's own.
        tags: further tags of new secrets.
        recovery_days: how long a removed client's secret can be restored, 7 to 30.
    """

    prefix: str
    kms_key_id: str = ""
    tags: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    recovery_days: int = 30


@dataclasses.dataclass(frozen=True)
class _Secret:
    """A client's secret as it was loaded: its tags, and the label of each version."""

    tags: dict[str, str]
    stages: dict[str, str]


class SecretsManagerKeyStore:
    """One secret for each client, and one for the fleet.

    Args:
        aws: the service.
        options: where and how.

    Raises:
        FleetError: an option is wrong.
    """

    def __init__(self, aws: SecretsManager, options: SecretOptions) -> None:
        if not _PREFIX.fullmatch(options.prefix) or len(options.prefix) > _MAX_PREFIX or "sk-" in options.prefix:
            raise FleetError(
                f"prefix is {keys.shown(options.prefix)}. Give the beginning of the secrets' names without a slash at "
                f"its end, such as inference-fleet/production: letters, digits and /_+=.@-, at most {_MAX_PREFIX}."
            )
        if not 7 <= options.recovery_days <= 30:
            raise FleetError(f"recovery_days is {options.recovery_days}. Secrets Manager takes 7 to 30.")
        key_tags.check(options.tags)
        self._aws = aws
        self._options = options
        self._secrets: dict[str, _Secret] = {}
        self._fleet: dict[str, t.Any] = {}
        self._fleet_version = ""
        self.name = f"the key store {options.prefix} in {aws.where}"
        self._subject = f"T{self.name[1:]}"

    @contextlib.contextmanager
    def locked(self, make: bool) -> t.Iterator[None]:
        """There is no lock: save() detects another writer."""
        yield

    def load(self) -> Content:
        for attempt in range(1, _READS + 1):
            try:
                content = self._load()
            except AwsFailure:
                # A secret that was deleted meanwhile is no failure.
                if attempt == _READS or self._load_fleet()[1] == self._fleet_version:
                    raise
                continue
            if self._load_fleet()[1] == self._fleet_version:
                return content
        return dataclasses.replace(content, writing=True)

    def _load(self) -> Content:
        self._secrets = {}
        self._fleet, self._fleet_version = self._load_fleet()
        if not self._fleet_version:
            return Content(exists=False)
        try:
            names = [keys.check_client_name(name) for name in self._fleet["clients"]]
            leftovers = tuple(keys.check_client_name(name) for name in self._fleet["removing"])
            shared = key_document.shared(self._fleet)
            writing = bool(self._fleet.get("writing"))
        except (AttributeError, FleetError, KeyError, TypeError, ValueError):
            raise self._damaged(_FLEET) from None
        with concurrent.futures.ThreadPoolExecutor(CONNECTIONS) as pool:
            loaded = dict(zip(names, pool.map(self._load_client, names)))
        return Content(
            clients={name: client for name, client in loaded.items() if isinstance(client, ClientKeys)},
            missing={name: why for name, why in loaded.items() if isinstance(why, str)},
            leftovers=leftovers,
            writing=writing,
            **shared,
        )

    def save(self, before: Content, after: Content) -> None:
        there = [*before.clients, *before.missing]
        gone = [name for name in there if name not in after.clients and name not in after.missing]
        removing = sorted({*before.leftovers, *gone})
        stay = [name for name in there if name not in gone]
        # A rotation ends after its keys have changed; all its other changes are saved before.
        first = after if after.rotation else dataclasses.replace(before, removed=after.removed)
        changes = after.generation != before.generation
        first = dataclasses.replace(first, id=after.id, generation=before.generation, writing=changes)
        if not self._fleet_version or gone or changes or first.rotation != before.rotation:
            # Before the first secret gets what an earlier collection would remove.
            self._save_fleet(stay, removing, first, key_document.version(before, after))
        # Removals first: a client may be added again under the same name.
        for name in removing:
            self._delete(name)
        made = True
        for name, client in after.clients.items():
            if name not in before.clients:
                made = self._create(name, client) and made
            elif client != before.clients[name]:
                self._change(name, before.clients[name], client)
        self._save_fleet([*after.clients, *after.missing], [], after, key_document.version(after))
        if not made:
            raise StoreChanged(f"Secrets of {self.name} were there already.")

    # The fleet's secret

    def _load_fleet(self) -> tuple[dict[str, t.Any], str]:
        try:
            answer = self._aws.call("get_secret_value", self._secret(_FLEET), VersionStage=_CURRENT)
        except AwsFailure as failure:
            if failure.code == NOT_FOUND:
                return {}, ""
            if failure.code == BAD_REQUEST:
                raise FleetError(self._to_be_restored(_FLEET)) from None
            raise
        document = self._parsed(_FLEET, answer)
        try:
            unknown = key_document.unknown_version(document.get("version"))
        except TypeError:
            raise self._damaged(_FLEET) from None
        if unknown:
            raise FleetError(f"{self._subject} {unknown}")
        return document, str(answer["VersionId"])

    def _save_fleet(self, names: t.Iterable[str], removing: list[str], content: Content, version: int) -> None:
        """Write the fleet's secret, if it is still the one that was read."""
        shared = {**key_document.shared_document(content), **({"writing": True} if content.writing else {})}
        # In JSON's form, to compare it with what was read.
        document = json.loads(
            json.dumps({"version": version, "clients": sorted(names), "removing": removing, **shared})
        )
        if document == self._fleet:
            return
        text = json.dumps(document)
        if len(text.encode()) > _MAX_BYTES:
            raise FleetError(
                f"{self._subject} has too many clients: their names and the rotation need more than {_MAX_BYTES} "
                "bytes. Use a prefix of its own for a part of them."
            )
        written = uuid.uuid4().hex
        if self._fleet_version:
            self._put(_FLEET, written, text)
            self._move_current(_FLEET, self._fleet_version, written)
        elif not self._make(_FLEET, written, text, {}):
            raise StoreChanged(f"{self._subject} was made by somebody else at the same time.")
        self._fleet, self._fleet_version = document, written

    # A client's secret

    def _load_client(self, name: str) -> ClientKeys | str:
        """The client, or why its keys cannot be read."""
        try:
            description = self._aws.call("describe_secret", self._secret(name))
        except AwsFailure as failure:
            if failure.code == NOT_FOUND:
                return (
                    f"Secret {self._secret(name)} of client {name} is missing in {self._aws.where}: somebody deleted "
                    f"it. Remove the client with state absent, then run playbooks/keys.yml to give it a new key."
                )
            raise
        if description.get("DeletedDate"):
            return self._to_be_restored(name)
        tags = {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}
        stages = {
            label: version for version, labels in description.get("VersionIdsToStages", {}).items() for label in labels
        }
        if tags.get(key_tags.CLIENT) != name or _CURRENT not in stages:
            raise self._foreign(name)
        self._secrets[name] = _Secret(tags, stages)
        current = self._load_key(name, stages[_CURRENT])
        pending, previous = stages.get(_PENDING), stages.get(_PREVIOUS)
        try:
            return key_tags.client(
                name,
                tags,
                current,
                # An interrupted finish leaves the label on what is now the current key.
                self._load_key(name, pending) if pending and pending != current.id else None,
                self._load_key(name, previous) if previous and previous != current.id else None,
            )
        except (KeyError, TypeError, ValueError):
            raise FleetError(
                f"The tags of secret {self._secret(name)} in {self._aws.where} are not as this collection writes them. "
                f"Remove those whose names begin with {key_tags.OWN}, but not {key_tags.CLIENT}, then run again."
            ) from None

    def _load_key(self, name: str, version: str) -> Key:
        try:
            answer = self._aws.call("get_secret_value", self._secret(name), VersionId=version)
        except AwsFailure as failure:
            if failure.code == NOT_FOUND:
                raise FleetError(
                    f"Version {version} of secret {self._secret(name)} in {self._aws.where} has no value. Switch its "
                    "own rotation in Secrets Manager off: this collection rotates it."
                ) from None
            raise
        item = self._parsed(name, answer)
        try:
            return key_tags.key(item, version)
        except (KeyError, TypeError, ValueError):
            raise self._damaged(name) from None

    def _create(self, name: str, client: ClientKeys) -> bool:
        """Create the client's secret; False where it exists already."""
        tags = key_tags.of(name, client)
        if self._make(name, client.current.id, _value(name, client.current), tags):
            return True
        # An interrupted or a concurrent run created it. Its key may be in use, so it is the client's.
        there = self._load_client(name)
        if isinstance(there, str):
            raise FleetError(there)
        return False

    def _change(self, name: str, old: ClientKeys, new: ClientKeys) -> None:
        secret = self._secrets[name]
        tags = key_tags.of(name, new)
        added = {key: value for key, value in tags.items() if secret.tags.get(key) != value}
        stale = [key for key in secret.tags if key.startswith(key_tags.OWN) and key not in tags]
        key_tags.check({**secret.tags, **tags}, name)
        if stale:
            self._aws.call("untag_resource", self._secret(name), TagKeys=stale)
        if added:
            self._aws.call("tag_resource", self._secret(name), Tags=key_tags.listed(added))
        if new.pending and new.pending.id != secret.stages.get(_PENDING):
            self._put(name, new.pending.id, _value(name, new.pending))
        if new.current.id != old.current.id:
            self._move_current(name, old.current.id, new.current.id)
        if new.pending is None and _PENDING in secret.stages:
            self._remove_label(name, _PENDING, secret.stages[_PENDING])
        if new.previous is None and _PREVIOUS in secret.stages:
            self._remove_label(name, _PREVIOUS, secret.stages[_PREVIOUS])

    def _delete(self, name: str) -> None:
        try:
            description = self._aws.call("describe_secret", self._secret(name))
        except AwsFailure as failure:
            if failure.code == NOT_FOUND:
                return
            raise
        tags = {tag["Key"]: tag["Value"] for tag in description.get("Tags", [])}
        # Leave another owner's secret with this name alone, and one that is being deleted already.
        if tags.get(key_tags.CLIENT) == name and not description.get("DeletedDate"):
            days = self._options.recovery_days
            self._aws.call("delete_secret", self._secret(name), RecoveryWindowInDays=days)

    # Single calls

    def _make(self, name: str, version: str, text: str, tags: t.Mapping[str, str]) -> bool:
        """Create a secret; False where there is one with this name."""
        tags = {**self._options.tags, **tags}
        kms = {"KmsKeyId": self._options.kms_key_id} if self._options.kms_key_id else {}
        try:
            self._aws.call(
                "create_secret",
                self._secret(name),
                ClientRequestToken=version,
                SecretString=text,
                Tags=key_tags.listed(tags),
                **kms,
            )
        except AwsFailure as failure:
            if failure.code not in (EXISTS, BAD_REQUEST):
                raise
            # AWS returns BAD_REQUEST for a name whose secret is scheduled for deletion, but not only then.
            if failure.code == BAD_REQUEST and not self._is_going(name):
                raise
            return False
        return True

    def _put(self, name: str, version: str, text: str) -> None:
        try:
            self._aws.call(
                "put_secret_value",
                self._secret(name),
                ClientRequestToken=version,
                SecretString=text,
                VersionStages=[_PENDING],
            )
        except AwsFailure as failure:
            if failure.code != EXISTS:
                raise
            # The same step was done before, with another key: that one counts.
            stages = self._stages(name)
            if stages.get(_PENDING) != version:
                remove = {"RemoveFromVersionId": stages[_PENDING]} if _PENDING in stages else {}
                self._aws.call(
                    "update_secret_version_stage",
                    self._secret(name),
                    VersionStage=_PENDING,
                    MoveToVersionId=version,
                    **remove,
                )
            raise StoreChanged(f"Somebody else did the same step in {self.name}.") from None

    def _move_current(self, name: str, old: str, new: str) -> None:
        try:
            self._aws.call(
                "update_secret_version_stage",
                self._secret(name),
                VersionStage=_CURRENT,
                RemoveFromVersionId=old,
                MoveToVersionId=new,
            )
        except AwsFailure as failure:
            if failure.code not in (BAD_PARAMETER, BAD_REQUEST):
                raise
            now = self._stages(name).get(_CURRENT)
            if now == old:
                raise
            # The first call may have succeeded with its answer lost, and boto3 repeated it.
            if now != new:
                raise StoreChanged(f"Somebody else changed {self.name}.") from None

    def _remove_label(self, name: str, label: str, version: str) -> None:
        try:
            self._aws.call(
                "update_secret_version_stage", self._secret(name), VersionStage=label, RemoveFromVersionId=version
            )
        except AwsFailure as failure:
            if failure.code not in (BAD_PARAMETER, BAD_REQUEST) or self._stages(name).get(label) == version:
                raise

    def _stages(self, name: str) -> dict[str, str]:
        versions = self._aws.call("describe_secret", self._secret(name)).get("VersionIdsToStages", {})
        return {label: version for version, labels in versions.items() for label in labels}

    def _is_going(self, name: str) -> bool:
        with contextlib.suppress(AwsFailure):
            return bool(self._aws.call("describe_secret", self._secret(name)).get("DeletedDate"))
        return False

    def _secret(self, name: str) -> str:
        return f"{self._options.prefix}/{name}"

    def _parsed(self, name: str, answer: t.Mapping[str, t.Any]) -> dict[str, t.Any]:
        try:
            document = json.loads(answer["SecretString"])
        except (KeyError, ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise self._damaged(name)
        return document

    def _damaged(self, name: str) -> FleetError:
        return FleetError(
            f"The value of secret {self._secret(name)} in {self._aws.where} is not the JSON that this collection "
            "writes: somebody else changed it. Nothing was changed. Move AWSCURRENT back to the version that has "
            "AWSPREVIOUS (aws secretsmanager update-secret-version-stage), then run again."
        )

    def _foreign(self, name: str) -> FleetError:
        return FleetError(
            f"Secret {self._secret(name)} in {self._aws.where} was not made by this collection: it has no tag "
            f"{key_tags.CLIENT}={name}, or no value. Use another prefix, or remove it."
        )

    def _to_be_restored(self, name: str) -> str:
        secret = self._secret(name)
        return (
            f"Secret {secret} in {self._aws.where} is scheduled for deletion. Restore it (aws secretsmanager "
            f"restore-secret --region {self._aws.region} --secret-id {secret}), then run again. The key in it is "
            "valid again then: rotate it if it was removed on purpose."
        )


def _value(name: str, key: Key) -> str:
    return json.dumps({"client": name, "key": key.key, "created": key.created, "rotation": key.rotation})
