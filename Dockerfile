# The release program, built from a clone: docker build -t vaplan .
# The program needs no libtorch for labelling and encoding. Commands that train or predict need the image with libtorch:
#   docker build --build-arg FEATURES=default -t vaplan:train .
FROM rust:1.95-bookworm AS build
ARG FEATURES=encode,query
WORKDIR /src
COPY . .
RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ python3 python3-pip && rm -rf /var/lib/apt/lists/*
# libtorch and ONNX Runtime, with checked sums. Without `default` the program is built without libtorch, but `encode` still
# loads ONNX Runtime when it runs.
RUN scripts/native-libs.sh
RUN if [ "$FEATURES" = default ]; then cargo build --locked --release; \
    else cargo build --locked --release --no-default-features --features "$FEATURES" --bin vaplan; fi
RUN mkdir -p /out/bin /out/lib && cp target/release/vaplan /out/bin/ && cp -a third_party/onnxruntime/lib/. /out/lib/ \
    && if [ "$FEATURES" = default ]; then cp target/release/vaplan-torch /out/bin/ && cp -a third_party/libtorch/lib/. /out/lib/; fi

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates ffmpeg libgomp1 && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/bin/ /usr/local/bin/
COPY --from=build /out/lib/ /usr/local/lib/vaplan/
ENV LD_LIBRARY_PATH=/usr/local/lib/vaplan ORT_DYLIB_PATH=/usr/local/lib/vaplan/libonnxruntime.so
# The scratch folder of stores and inputs at URLs. The user of the container has no home folder, and can be any user. A volume
# mounted here keeps the copies of inputs for later containers.
RUN mkdir -m 1777 /var/cache/vaplan
ENV VAPLAN_SCRATCH=/var/cache/vaplan
# A store on a mounted folder belongs to the user that writes it.
USER 1000:1000
ENTRYPOINT ["vaplan"]
