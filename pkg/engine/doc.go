// Package engine makes store paths valid from their NARs, by one of four engines:
// [Protocol] as Nix itself does it, [Import] by `nix-store --import`, [Direct] by
// unpacking the NARs and having Nix register the paths, and [DirectAsRoot] the same with
// the help of a process that runs as root. They differ in what they need and how fast they
// are, and leave the same store behind, but for what import can't carry.
package engine
