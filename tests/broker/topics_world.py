"""One prefix on the real broker, looked at and changed behind the pipeline's back."""

from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from pipeline.domain import ids
from pipeline.runtime.admin import Admin
from pipeline.runtime.codec import Codec
from pipeline.runtime.kafka import Cluster
from pipeline.topology import Catalogue, load

CODEC = Codec()
PEPPER = ids.pepper_fingerprint(b"the first pepper")
OTHER = ids.pepper_fingerprint(b"another pepper!!")

SMALL = load("""
lanes: [urgent]
channels: [sms]
defaults:
  partitions: 3
  replication: 1
  config: {message.timestamp.type: LogAppendTime}
  compacted: {delete.retention.ms: 172800000}
  compacted_content: {max.compaction.lag.ms: 86400000}
broker: {}
topics:
  intake:
    {purpose: In., key: any, record: SendRequest, partitions: shared, retention: 3d,
     content: true, writers: [clients], readers: [accept]}
  intake.bulk:
    {purpose: In., key: any, record: SendRequest, partitions: shared, retention: 3d,
     content: true, writers: [clients], readers: [accept]}
  fallback.changelog:
    {purpose: State., key: state key, record: {m: MessageState}, partitions: shared,
     retention: compact, content: true, writers: [fallback], readers: [fallback]}
  control:
    {purpose: Keys., key: cluster, record: Control, partitions: 1, retention: compact,
     writers: [cli], readers: [accept, fallback]}
tasks: {fallback: {lead: fallback.changelog}}
""")


class World:
    """One prefix on the broker."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.cluster = Cluster(bootstrap, prefix)
        self.client = self.cluster.admin()

    def admin(
        self, pepper: str = PEPPER, partitions: int | None = None, catalogue: Catalogue = SMALL
    ) -> Admin:
        return Admin(self.cluster, CODEC, pepper, partitions=partitions, catalogue=catalogue)

    def applied(self) -> "World":
        admin = self.admin()
        admin.apply(admin.plan())
        return self

    def configs(self, topic: str) -> dict[str, str | None]:
        resource = ConfigResource(ResourceType.TOPIC, self.cluster.real(topic))
        (future,) = self.client.describe_configs([resource]).values()
        return {name: entry.value for name, entry in future.result(10).items()}

    def set_config(self, topic: str, name: str, value: str) -> None:
        entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(
            ResourceType.TOPIC, self.cluster.real(topic), incremental_configs=[entry]
        )
        (future,) = self.client.incremental_alter_configs([resource]).values()
        future.result(10)

    def offsets(self, group: str) -> dict[tuple[str, int], int]:
        asked = [ConsumerGroupTopicPartitions(self.cluster.group(group))]
        (future,) = self.client.list_consumer_group_offsets(asked).values()
        return {
            (self.cluster.logical(place.topic), place.partition): place.offset
            for place in future.result(10).topic_partitions
        }

    def commit(self, group: str, topic: str, partition: int, offset: int) -> None:
        place = TopicPartition(self.cluster.real(topic), partition, offset)
        asked = [ConsumerGroupTopicPartitions(self.cluster.group(group), [place])]
        (future,) = self.client.alter_consumer_group_offsets(asked).values()
        assert all(found.error is None for found in future.result(10).topic_partitions)

    def clean(self) -> None:
        topics = [
            name
            for name in self.client.list_topics(timeout=10).topics
            if name.startswith(self.cluster.prefix)
        ]
        for future in self.client.delete_topics(topics).values() if topics else ():
            future.result(10)
        found = self.client.list_consumer_groups().result(10).valid
        groups = [g.group_id for g in found if g.group_id.startswith(self.cluster.prefix)]
        for future in self.client.delete_consumer_groups(groups).values() if groups else ():
            future.result(10)
