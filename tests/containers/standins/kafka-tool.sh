#!/bin/bash
exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xmx"${HEAP:-128m}" -cp "/opt/kafka/libs/*" "$@"
