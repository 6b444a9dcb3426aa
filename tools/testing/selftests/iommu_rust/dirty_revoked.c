// SPDX-License-Identifier: GPL-2.0
/*
 * Memory that its exporter revokes while its dirty bitmap is queried, like a BAR when
 * memory decoding of its function is switched off: a DMA buffer. iommufd removes the
 * leaves then under a lock that no query holds, so it may remove tables that a query
 * still reads.
 *
 * The buffer is that of iommufd's self-test (CONFIG_IOMMUFD_TEST), which is memory and
 * needs no function. Two emulated processors seldom race within a walk: the tests on the
 * host check that no table is freed too early. This test checks what user space sees.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/harness.h"
#include "lib/leaves.h"

#include "../../../../drivers/iommu/iommufd/iommufd_test.h"

/* The range of one table of leaves, and the largest size of the self-test. */
#define BUFFER_SIZE SZ_2M
#define ROUNDS 100

static const char *device_bdf;

FIXTURE(dirty_revoked) {
	struct dirty_env env;
	int fd;
	/* The buffer, which is not memory of this program, and memory that is. */
	struct dirty_area buffer;
	struct dirty_area other;
	struct page_set written;
	struct page_set other_written;
	atomic_bool stop;
	atomic_int asked;
};

static int test_command(struct dirty_env *env, struct iommu_test_cmd *cmd)
{
	cmd->size = sizeof(*cmd);

	return ioctl(env->iommu->iommufd, IOMMU_TEST_CMD, cmd);
}

/*
 * Returns a descriptor, or -errno. Linux 7.3.4 returns 0 instead of the descriptor that
 * it makes, which is the lowest free one.
 */
static int buffer_get(struct dirty_env *env)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_DMABUF_GET,
		.dmabuf_get.length = BUFFER_SIZE,
		.dmabuf_get.open_flags = O_CLOEXEC,
	};
	int free = dup(env->iommu->iommufd);
	int fd;

	VFIO_ASSERT_LE(0, free);
	VFIO_ASSERT_EQ(close(free), 0);
	fd = test_command(env, &cmd);
	if (fd < 0)
		return -errno;

	return fd ? fd : free;
}

static void buffer_revoke(struct dirty_env *env, int fd, bool revoked)
{
	struct iommu_test_cmd cmd = {
		.op = IOMMU_TEST_OP_DMABUF_REVOKE,
		.dmabuf_revoke.dmabuf_fd = fd,
		.dmabuf_revoke.revoked = revoked,
	};

	VFIO_ASSERT_EQ(test_command(env, &cmd), 0);
}

static void buffer_map(struct dirty_env *env, struct dirty_area *buffer, int fd)
{
	struct iommu_ioas_map_file cmd = {
		.size = sizeof(cmd),
		.flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE |
			 IOMMU_IOAS_MAP_FIXED_IOVA,
		.ioas_id = env->iommu->ioas_id,
		.fd = fd,
		.length = buffer->region.size,
		.iova = buffer->region.iova,
	};

	ioctl_assert(env->iommu->iommufd, IOMMU_IOAS_MAP_FILE, &cmd);
}

FIXTURE_SETUP(dirty_revoked)
{
	struct dirty_env *env = &self->env;
	const char *skip = dirty_env_open(env, device_bdf, PAGE_4K);

	if (skip)
		SKIP(return, "%s", skip);

	self->fd = buffer_get(env);
	if (self->fd < 0)
		SKIP(return, "needs a kernel with CONFIG_IOMMUFD_TEST");
	leaves_place(&self->buffer, NULL, iova_allocator_alloc(env->iova, BUFFER_SIZE),
		     BUFFER_SIZE, PAGE_4K);
	leaves_place(&self->other, leaves_alloc(PAGE_4K, BUFFER_SIZE),
		     iova_allocator_alloc(env->iova, BUFFER_SIZE), BUFFER_SIZE, PAGE_4K);
	self->written = page_set_alloc(&self->buffer);
	self->other_written = page_set_alloc(&self->other);
	hwpt_set_dirty(env, env->hwpt, true);
}

FIXTURE_TEARDOWN(dirty_revoked)
{
	if (self->other.region.vaddr) {
		munmap(self->other.region.vaddr, BUFFER_SIZE);
		page_set_free(&self->other_written);
		page_set_free(&self->written);
		close(self->fd);
	}
	dirty_env_close(&self->env);
}

/* The device writes where this program cannot read. */
static void write_buffer(FIXTURE_DATA(dirty_revoked) *self, int nr)
{
	struct dirty_dev *dev = &self->env.dev;

	while (nr--) {
		u64 page = page_set_add_random(&self->written, &self->env.seed);
		u64 iova = self->buffer.region.iova + page * PAGE_4K;

		VFIO_ASSERT_EQ(vfio_pci_driver_memcpy(dev->pci, dev->local.iova, iova,
						      STAMP_SIZE), 0);
	}
}

static struct dirty_report ask(FIXTURE_DATA(dirty_revoked) *self)
{
	return dirty_query(&self->env, self->env.hwpt, &self->buffer, query_all(&self->buffer),
			   &self->written);
}

/* Tracked like any memory; unmapped at once, and back only when it is mapped again. */
TEST_F(dirty_revoked, is_tracked)
{
	struct dirty_env *env = &self->env;

	for (int round = 0; round < 3; round++) {
		buffer_map(env, &self->buffer, self->fd);
		page_set_clear(&self->written);
		write_buffer(self, 8);
		dirty_write_random(env, 4);
		EXPECT_EXACT(ask(self));
		write_buffer(self, 8);

		/* Dirty bits end with the leaves; other memory keeps its own. */
		buffer_revoke(env, self->fd, true);
		page_set_clear(&self->written);
		EXPECT_EXACT(ask(self));
		EXPECT_EXACT(dirty_harvest(env, query_all(&env->area)));

		buffer_revoke(env, self->fd, false);
		EXPECT_EXACT(ask(self));
		leaves_unmap(env, &self->buffer);
	}
}

static void *ask_always(void *data)
{
	FIXTURE_DATA(dirty_revoked) *self = data;
	struct iommu_hwpt_get_dirty_bitmap cmd = {
		.hwpt_id = self->env.hwpt,
		.iova = self->buffer.region.iova,
		.length = self->buffer.region.size,
		.page_size = PAGE_4K,
		.data = (uintptr_t)malloc_assert(self->buffer.nr_pages / 8),
	};

	while (!atomic_load(&self->stop)) {
		VFIO_ASSERT_EQ(__hwpt_get_dirty(self->env.iommu->iommufd, &cmd), 0);
		atomic_fetch_add(&self->asked, 1);
	}
	free((void *)(uintptr_t)cmd.data);

	return NULL;
}

/*
 * Many queries, one of which is running when the leaves are removed. The next memory
 * that is mapped gets the table that was freed last: a query that still reads it would
 * make written pages clean there.
 */
TEST_F(dirty_revoked, beside_queries)
{
	struct dirty_env *env = &self->env;
	struct dirty_area *other = &self->other;
	pthread_t thread;

	if (dirty_walker_is_generic_pt(device_bdf))
		SKIP(return, "generic_pt of Linux 7.3.4 walks tables that are freed meanwhile");

	ASSERT_EQ(0, pthread_create(&thread, NULL, ask_always, self));
	for (int round = 0; round < ROUNDS; round++) {
		u64 spin = dirty_random(&env->seed) % 4000;

		buffer_map(env, &self->buffer, self->fd);
		write_buffer(self, 2);
		while (spin--)
			__asm__ volatile("pause");
		buffer_revoke(env, self->fd, true);

		leaves_map(env, other);
		page_set_clear(&self->other_written);
		for (int n = 0; n < 4; n++)
			dirty_write(&env->dev, other,
				    page_set_add_random(&self->other_written, &env->seed));
		EXPECT_EXACT(dirty_query(env, env->hwpt, other, query_all(other),
					 &self->other_written));
		leaves_unmap(env, other);

		leaves_unmap(env, &self->buffer);
		buffer_revoke(env, self->fd, false);
	}
	atomic_store(&self->stop, true);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_LT(ROUNDS, atomic_load(&self->asked));

	/* No leaf has come back, and none blocks other mappings. */
	page_set_clear(&self->written);
	EXPECT_EXACT(ask(self));
	buffer_map(env, &self->buffer, self->fd);
	EXPECT_EXACT(ask(self));
	write_buffer(self, 8);
	EXPECT_EXACT(ask(self));
	leaves_unmap(env, &self->buffer);
}

int main(int argc, char *argv[])
{
	device_bdf = vfio_selftests_get_bdf(&argc, argv);

	return test_harness_run(argc, argv);
}
