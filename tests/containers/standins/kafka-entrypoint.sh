#!/bin/bash
# What apache/kafka does at its start: KAFKA_A_B becomes a.b in server.properties, the storage is formatted once.
set -euo pipefail
cd /tmp
env | sed -n 's/^KAFKA_//p' | while IFS='=' read -r name value; do
    echo "$(tr 'A-Z_' 'a-z.' <<<"$name")=$value"
done >server.properties
echo listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT >>server.properties
tool=/opt/kafka/bin/kafka-run-class.sh
[ -e "$KAFKA_LOG_DIRS/meta.properties" ] || $tool kafka.tools.StorageTool format -t 5L6g3nShT-eMCtK--X86sw -c server.properties
HEAP=512m exec $tool kafka.Kafka server.properties
