# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# Private to this collection: not part of its public interface.
"""One queue of SQS, and the messages that were received from it."""

from __future__ import annotations

import dataclasses

from ansible_collections.inference.fleet.plugins.module_utils.core import aws_errors
from ansible_collections.inference.fleet.plugins.module_utils.core.aws_errors import AwsFailure
from ansible_collections.inference.fleet.plugins.plugin_utils.aws import session

_AT_ONCE = 10
#: Another receipt has taken the place of ours: the message comes again, or has come.
_LOST = ("MessageNotInflight", "ReceiptHandleIsInvalid", "InvalidParameterValue")


@dataclasses.dataclass(frozen=True)
class QueueMessage:
    """A message as it was received.

    Attributes:
        id: of the message; each receipt of it has the same.
        receipt: what names this receipt.
        body: its text.
    """

    id: str
    receipt: str
    body: str


class EventQueue:
    """A queue.

    Args:
        url: its URL.
        region: where it is.
        used_by: what needs it, for messages.
        endpoint: the URL of a stand-in for AWS; empty for AWS.
    """

    def __init__(self, url: str, region: str, used_by: str, endpoint: str = "") -> None:
        self._url = url
        self._about = f"queue {url.rpartition('/')[2]}"
        # A long poll is answered after up to 20 s.
        seconds = aws_errors.READ_SECONDS + 20
        self._sqs = session.open_service("sqs", region, used_by, endpoint, read_seconds=seconds)

    def receive(self, wait: int, visibility: int) -> list[QueueMessage]:
        """The next messages, at most ten.

        Args:
            wait: seconds for which to wait for the first one, at most 20.
            visibility: seconds in which nothing else receives them.

        Raises:
            FleetError: AWS refused it, or did not answer.
        """
        answer = self._sqs.call(
            "receive_message",
            self._about,
            QueueUrl=self._url,
            MaxNumberOfMessages=_AT_ONCE,
            WaitTimeSeconds=wait,
            VisibilityTimeout=visibility,
        )
        return [
            QueueMessage(str(one["MessageId"]), str(one["ReceiptHandle"]), str(one["Body"]))
            for one in answer.get("Messages", ())
        ]

    def extend(self, message: QueueMessage, visibility: int) -> bool:
        """Keep a message from other receivers for some seconds more; whether that was still possible.

        Raises:
            FleetError: AWS refused it for another reason, or did not answer.
        """
        try:
            self._sqs.call(
                "change_message_visibility",
                self._about,
                QueueUrl=self._url,
                ReceiptHandle=message.receipt,
                VisibilityTimeout=visibility,
            )
        except AwsFailure as error:
            if _is_lost(error):
                return False
            raise
        return True

    def delete(self, message: QueueMessage) -> None:
        """Delete a message.

        Raises:
            FleetError: AWS refused it for another reason than that it is gone, or did not answer.
        """
        try:
            self._sqs.call("delete_message", self._about, QueueUrl=self._url, ReceiptHandle=message.receipt)
        except AwsFailure as error:
            if not _is_lost(error):
                raise

    def dead_letters(self) -> str:
        """The ARN of the queue's dead-letter queue, and after how many receipts, as AWS says it; empty for none.

        Raises:
            FleetError: there is no such queue, AWS refused it, or did not answer.
        """
        answer = self._sqs.call(
            "get_queue_attributes", self._about, QueueUrl=self._url, AttributeNames=["RedrivePolicy"]
        )
        return str(answer.get("Attributes", {}).get("RedrivePolicy", ""))


def _is_lost(error: AwsFailure) -> bool:
    return error.code.rpartition(".")[2] in _LOST
