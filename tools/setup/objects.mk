# SPDX-License-Identifier: GPL-2.0
#
# make -s -f objects.mk config=FILE, in a kernel tree: the objects that a configuration has, as
# Kbuild's files name them, one a line.  Kbuild itself knows them only while it builds.

srctree := .
objtree := .
srcroot := .
SRCARCH := x86
BITS := 64
ARCH_LIB := lib/ arch/x86/lib/
ARCH_DRIVERS := arch/x86/pci/ arch/x86/power/

all: ;@:

include $(config)
include scripts/Kbuild.include

# As in scripts/Makefile.build.
suffix-search = $(strip $(foreach s, $3, $($(1:%$(strip $2)=%$s))))
real-search = $(foreach m, $1, \
	$(if $(call suffix-search, $m, $2, $3 -), $(call suffix-search, $m, $2, $3), $m))

define read
obj-y :=
obj-m :=
lib-y :=
lib-m :=
subdir-y :=
subdir-m :=
obj := $1
src := $1
-include $(firstword $(wildcard $1/Kbuild $1/Makefile))
endef

listed = $(filter %.o, $(obj-y) $(obj-m) $(lib-y) $(lib-m))
below = $(sort $(patsubst %/, %, $(filter %/, $(obj-y) $(obj-m)) $(subdir-y) $(subdir-m)))
say = $(foreach o, $(sort $(filter %.o, $(call real-search, $(listed), .o, -objs -y -m))), \
	$(info $1/$o))
# Another folder can have an object of the same name that is not made of parts.
forget = $(foreach m, $(listed:.o=), $(foreach s, objs y m, $(eval undefine $m-$s)))
visit = $(eval $(call read,$1))$(call say,$1)$(forget)$(foreach d,$(below),$(call visit,$1/$d))

$(call visit,.)
