module model-serving/toolchain/gke-definitions

go 1.26.0

require (
	github.com/GoogleCloudPlatform/gke-gateway-api v1.3.0
	github.com/GoogleCloudPlatform/prometheus-engine v0.17.2
)
