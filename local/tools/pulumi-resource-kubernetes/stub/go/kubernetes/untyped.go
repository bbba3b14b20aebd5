// Package kubernetes has what the provider needs of Pulumi's SDK for Go, whose types of every kind of object are a
// quarter of what it would compile. The provider declares the objects of a manifest with it, for which no type is needed.
package kubernetes

import "reflect"

// UntypedArgs are the properties of an object of any kind.
type UntypedArgs map[string]any

func (UntypedArgs) ElementType() reflect.Type {
	return reflect.TypeFor[map[string]any]()
}
