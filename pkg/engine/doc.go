// Package engine makes store paths valid from their NARs, with one of four engines:
// [Protocol] speaks Nix's own protocol, [Import] runs `nix-store --import`, [Direct]
// unpacks the NARs and has Nix register the paths, and [DirectAsRoot] does the same with
// the help of a process that runs as root. They differ in requirements and speed. The
// resulting stores are the same, except that import loses some metadata. [Export] writes the
// paths as a stream and needs no Nix.
package engine
