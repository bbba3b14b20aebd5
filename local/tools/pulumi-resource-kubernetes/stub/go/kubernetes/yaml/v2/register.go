// Package v2 declares the objects of a manifest.
package v2

import (
	"strings"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// object is a resource of any kind.
type object struct {
	pulumi.CustomResourceState
}

// RegisterResource declares an object under the type that the SDK has for it.
func RegisterResource(
	ctx *pulumi.Context, apiVersion, kind, name string, props pulumi.Input, opts ...pulumi.ResourceOption,
) (pulumi.CustomResource, error) {
	if !strings.Contains(apiVersion, "/") {
		apiVersion = "core/" + apiVersion
	}
	var declared object
	if err := ctx.RegisterResource("kubernetes:"+apiVersion+":"+kind, name, props, &declared, opts...); err != nil {
		return nil, err
	}
	return &declared, nil
}
