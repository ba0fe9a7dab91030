# Our own packages, as an overlay.
final: prev: {
  backup = final.callPackage ./backup.nix { };
  notado = final.callPackage ./notado.nix { };
  raspberrypi-firmware = final.callPackage ./raspberrypi-firmware.nix { };
  website = final.callPackage ./website { };
}
