# The S3-compatible store: Versity's gateway in front of a volume, built from its source. A folder of /data is a bucket.
FROM golang:1.25.3-bookworm AS build
RUN CGO_ENABLED=0 GOBIN=/out go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

FROM alpine:3.22.2
RUN adduser -D -u 10002 store && install -d -o store -g store -m 0700 /data /data/lake
COPY --from=build /out/versitygw /usr/local/bin/versitygw
USER store
ENTRYPOINT ["versitygw"]
