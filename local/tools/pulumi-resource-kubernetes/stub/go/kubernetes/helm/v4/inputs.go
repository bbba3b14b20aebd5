// Package v4 has the types of a chart's inputs.
package v4

import (
	"context"
	"reflect"

	"github.com/pulumi/pulumi/sdk/v3/go/pulumi"
)

// RepositoryOpts say where a chart is, and how it is reached.
type RepositoryOpts struct {
	CaFile   pulumi.AssetOrArchive `pulumi:"caFile"`
	CertFile pulumi.AssetOrArchive `pulumi:"certFile"`
	KeyFile  pulumi.AssetOrArchive `pulumi:"keyFile"`
	Password *string               `pulumi:"password"`
	Repo     *string               `pulumi:"repo"`
	Username *string               `pulumi:"username"`
}

// RepositoryOptsArgs are RepositoryOpts whose values may not be known yet.
type RepositoryOptsArgs struct {
	CaFile   pulumi.AssetOrArchiveInput `pulumi:"caFile"`
	CertFile pulumi.AssetOrArchiveInput `pulumi:"certFile"`
	KeyFile  pulumi.AssetOrArchiveInput `pulumi:"keyFile"`
	Password pulumi.StringPtrInput      `pulumi:"password"`
	Repo     pulumi.StringPtrInput      `pulumi:"repo"`
	Username pulumi.StringPtrInput      `pulumi:"username"`
}

// RepositoryOptsOutput is the output of RepositoryOptsArgs.
type RepositoryOptsOutput struct{ *pulumi.OutputState }

// RepositoryOptsInput is any of the two.
type RepositoryOptsInput interface {
	pulumi.Input
	ToRepositoryOptsOutput() RepositoryOptsOutput
}

func (RepositoryOptsArgs) ElementType() reflect.Type   { return reflect.TypeFor[RepositoryOpts]() }
func (RepositoryOptsOutput) ElementType() reflect.Type { return reflect.TypeFor[RepositoryOpts]() }

func (i RepositoryOptsArgs) ToRepositoryOptsOutput() RepositoryOptsOutput {
	return pulumi.ToOutputWithContext(context.Background(), i).(RepositoryOptsOutput)
}

func (o RepositoryOptsOutput) ToRepositoryOptsOutput() RepositoryOptsOutput { return o }

// PostRenderer is a command that changes a chart's manifests.
type PostRenderer struct {
	Args    []string `pulumi:"args"`
	Command string   `pulumi:"command"`
}

// PostRendererArgs are a PostRenderer whose values may not be known yet.
type PostRendererArgs struct {
	Args    pulumi.StringArrayInput `pulumi:"args"`
	Command pulumi.StringInput      `pulumi:"command"`
}

// PostRendererOutput is the output of PostRendererArgs.
type PostRendererOutput struct{ *pulumi.OutputState }

// PostRendererInput is any of the two.
type PostRendererInput interface {
	pulumi.Input
	ToPostRendererOutput() PostRendererOutput
}

func (PostRendererArgs) ElementType() reflect.Type   { return reflect.TypeFor[PostRenderer]() }
func (PostRendererOutput) ElementType() reflect.Type { return reflect.TypeFor[PostRenderer]() }

func (i PostRendererArgs) ToPostRendererOutput() PostRendererOutput {
	return pulumi.ToOutputWithContext(context.Background(), i).(PostRendererOutput)
}

func (o PostRendererOutput) ToPostRendererOutput() PostRendererOutput { return o }

func init() {
	pulumi.RegisterInputType(reflect.TypeFor[RepositoryOptsInput](), RepositoryOptsArgs{})
	pulumi.RegisterInputType(reflect.TypeFor[PostRendererInput](), PostRendererArgs{})
	pulumi.RegisterOutputType(RepositoryOptsOutput{})
	pulumi.RegisterOutputType(PostRendererOutput{})
}
