// Package programs is a module of its own, for programs that tests run and
// whose requirements have no place in the main module's go.mod.
package programs
