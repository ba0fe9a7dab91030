{ stdenv }:

stdenv.mkDerivation {
  pname = "raspberrypi-firmware";
  version = "1.20240926";
  size = 300;
  buildInputs = [ ]; # runs before there is a libc
  meta.description = "Boot loader and device tree of the Raspberry Pi 3";
}
